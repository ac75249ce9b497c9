/** The `traceparent` header (W3C Trace Context §3.2) of a tunnel: a trace of its own, not sampled. */
import { randomFillSync } from 'node:crypto'

const TRACE_BYTES = 16
const PARENT_BYTES = 8
const ID_BYTES = TRACE_BYTES + PARENT_BYTES

/** Asking the generator costs more than the bytes do: one request is good for this many tunnels. */
const IDS_AT_ONCE = 256

const pool = Buffer.allocUnsafeSlow(ID_BYTES * IDS_AT_ONCE)
let used = pool.length

/** `00-<32 hex>-<16 hex>-00`, never the same twice. */
export function newTraceparent(): string {
  if (used === pool.length) {
    randomFillSync(pool)
    used = 0
  }
  const parentAt = used + TRACE_BYTES
  const end = used + ID_BYTES
  const text = `00-${pool.toString('hex', used, parentAt)}-${pool.toString('hex', parentAt, end)}-00`
  used = end
  return text
}
