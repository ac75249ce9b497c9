/**
 * What stands in the IPv4 and IPv6 tables of nf_tables, read from the kernel without a program
 * (linux/netfilter/nf_tables.h): a fingerprint of all of it, and what our rules have counted. Two namespaces with the
 * same fingerprint have the same tables, chains, policies and rules, down to the numbers the kernel gave them.
 *
 * The rules may be anybody's and any number: reading is bounded, and what cannot be read is no answer.
 */
import { createHash } from 'node:crypto'
import { closeFd } from './fd.ts'
import {
  decodeAttributes,
  encodeMessage,
  NETLINK_NETFILTER,
  netlinkAnswers,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_REQUEST,
  openNetlink,
  type NetlinkMessage,
} from './netlink.ts'
import { AF_INET, AF_INET6 } from './sockaddr.ts'

const SUBSYSTEM = 10 << 8 // NFNL_SUBSYS_NFTABLES
const NFT_MSG_GETTABLE = SUBSYSTEM | 1
const NFT_MSG_GETCHAIN = SUBSYSTEM | 4
const NFT_MSG_GETRULE = SUBSYSTEM | 7
const NFT_MSG_NEWGEN = SUBSYSTEM | 15
const NFT_MSG_GETGEN = SUBSYSTEM | 16
/** `struct nfgenmsg`; what follows the family is the number of the generation. */
const HEAD_BYTES = 4
const NFTA_GEN_ID = 1
const NFTA_TABLE_NAME = 1
const NFTA_TABLE_FLAGS = 2
const NFTA_CHAIN_COUNTERS = 8
const NFTA_RULE_TABLE = 1
const NFTA_RULE_CHAIN = 2
const NFTA_RULE_EXPRESSIONS = 4
const NFTA_EXPR_NAME = 1
const NFTA_EXPR_DATA = 2
const NFTA_COUNTER_BYTES = 1
const NFTA_COUNTER_PACKETS = 2
const NFTA_MATCH_NAME = 1
const NFTA_MATCH_INFO = 3
/** A pod of ours has 50 KB of them. */
const MAX_BYTES = 1024 * 1024

export interface CountedRule {
  readonly table: string
  readonly chain: string
  /** Of the match `comment`. */
  readonly comment: string
  readonly packets: bigint
}

export interface NftState {
  /** 64 hexadecimal digits. */
  readonly fingerprint: string
  /** Every rule that has a comment and a counter, both families. */
  readonly counted: readonly CountedRule[]
}

/** Reads the namespace that the thread is in. Undefined when there is too much, or it changes meanwhile. Throws `SYSCALL`. */
export function readNftables(): NftState | undefined {
  const fd = openNetlink(NETLINK_NETFILTER, 0, false)
  try {
    const before = generation(fd)
    const hash = createHash('sha256')
    const counted: CountedRule[] = []
    let left = MAX_BYTES
    const dump = (type: number, family: number, each: (body: Uint8Array) => void) => {
      if (left <= 0) return
      hash.update(`${type} ${family};`)
      const request = encodeMessage(type, NLM_F_REQUEST | NLM_F_DUMP, Uint8Array.of(family, 0, 0, 0))
      left -= netlinkAnswers(fd, request, 'list packet rules', left, ({ body }) => each(body))
    }
    for (const family of [AF_INET, AF_INET6]) {
      dump(NFT_MSG_GETTABLE, family, body => {
        // Not its handle, which is counted over all namespaces.
        const attributes = decodeAttributes(body, HEAD_BYTES)
        for (const part of [NFTA_TABLE_NAME, NFTA_TABLE_FLAGS])
          hash.update(attributes.get(part) ?? '').update(';')
      })
      dump(NFT_MSG_GETCHAIN, family, body => {
        decodeAttributes(body, HEAD_BYTES).get(NFTA_CHAIN_COUNTERS)?.fill(0)
        hash.update(body.subarray(HEAD_BYTES))
      })
      dump(NFT_MSG_GETRULE, family, body => {
        const rule = takeCounts(body)
        if (rule) counted.push(rule)
        hash.update(body.subarray(HEAD_BYTES))
      })
    }
    if (left < 0 || generation(fd) !== before) return undefined
    return { fingerprint: hash.digest('hex'), counted }
  } finally {
    closeFd(fd)
  }
}

/** It rises with every change of the namespace's rules. */
function generation(fd: number): string {
  let id = ''
  const request = encodeMessage(NFT_MSG_GETGEN, NLM_F_REQUEST | NLM_F_ACK, new Uint8Array(HEAD_BYTES))
  netlinkAnswers(
    fd,
    request,
    'ask for the generation of packet rules',
    MAX_BYTES,
    ({ type, body }: NetlinkMessage) => {
      if (type !== NFT_MSG_NEWGEN) return
      id = Buffer.from(decodeAttributes(body, HEAD_BYTES).get(NFTA_GEN_ID) ?? []).toString('hex')
    },
  )
  return id
}

/** Reads the counter of a rule and sets it to zero in these bytes, so that they are the same whatever it has counted. */
function takeCounts(body: Uint8Array): CountedRule | undefined {
  const attributes = decodeAttributes(body, HEAD_BYTES)
  let comment: string | undefined
  let packets: bigint | undefined
  for (const element of listOf(attributes.get(NFTA_RULE_EXPRESSIONS))) {
    const expression = decodeAttributes(element, 0)
    const data = decodeAttributes(expression.get(NFTA_EXPR_DATA) ?? NOTHING, 0)
    const name = text(expression.get(NFTA_EXPR_NAME))
    if (name === 'counter') {
      const value = data.get(NFTA_COUNTER_PACKETS)
      if (value?.length === 8) packets = new DataView(value.buffer, value.byteOffset).getBigUint64(0)
      value?.fill(0)
      data.get(NFTA_COUNTER_BYTES)?.fill(0)
    } else if (name === 'match' && text(data.get(NFTA_MATCH_NAME)) === 'comment') {
      comment = text(data.get(NFTA_MATCH_INFO))
    }
  }
  if (comment === undefined || packets === undefined) return undefined
  const table = text(attributes.get(NFTA_RULE_TABLE))
  return { table, chain: text(attributes.get(NFTA_RULE_CHAIN)), comment, packets }
}

const NOTHING = new Uint8Array(0)

/** The elements of a list of attributes that all have the same type. */
function listOf(bytes: Uint8Array = NOTHING): Uint8Array[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const elements: Uint8Array[] = []
  for (let at = 0; at + 4 <= bytes.length;) {
    const length = view.getUint16(at, true)
    if (length < 4 || at + length > bytes.length) break
    elements.push(bytes.subarray(at + 4, at + length))
    at += (length + 3) & ~3
  }
  return elements
}

/** Up to the first zero. */
function text(bytes: Uint8Array = NOTHING): string {
  const end = bytes.indexOf(0)
  return Buffer.from(bytes.buffer, bytes.byteOffset, end < 0 ? bytes.length : end).toString('latin1')
}
