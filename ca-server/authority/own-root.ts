/**
 * The authority's own root, for those who bring none: made on the first start, kept in the data directory for
 * ever. The key's file comes first and is never overwritten; a certificate without its key is refused rather
 * than replaced, because agents may already trust it.
 */
import { createPrivateKey, randomBytes, X509Certificate as NodeCertificate } from 'node:crypto'
import { chmod, link, mkdir, readFile, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import {
  BasicConstraintsExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from './x509.ts'
import { CulvertError, errorCode } from '../../lib/errors.ts'
import { replaceFile, writeTemporary } from '../atomic-file.ts'
import type { Engine } from './engine.ts'
import { issuerFrom, type Issuer } from './issuer.ts'
import { newSerial } from './leaf.ts'

const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const LIFETIME_YEARS = 10
// A root made on a machine whose clock is ahead must be valid on the others at once.
const BACKDATE_MS = 3_600_000

export interface OwnRootOptions {
  readonly directory: string
  readonly trustDomain: string
  readonly engine: Engine
}

export interface OpenedRoot {
  readonly issuer: Issuer
  /** True when this call made it. */
  readonly created: boolean
}

/** Opens the root of `directory`, or makes it. Throws `PKI` when what is there cannot be used. */
export async function openOwnRoot(options: OwnRootOptions): Promise<OpenedRoot> {
  const keyPath = join(options.directory, 'root-key.pem')
  const certificatePath = join(options.directory, 'root-cert.pem')
  await mkdir(options.directory, { recursive: true, mode: 0o700 })
  let created = false
  let keyPem = await readIfThere(keyPath)
  let certificatePem = await readIfThere(certificatePath)
  if (keyPem === undefined) {
    if (certificatePem !== undefined)
      throw new CulvertError('PKI', `${certificatePath} is there but its key ${keyPath} is not`, {
        hint: 'restore the key; or, to start over with a new root that nobody trusts yet, remove the certificate',
      })
    keyPem = await makeKey(keyPath, options.engine)
  }
  await closeToOthers(keyPath)
  if (certificatePem === undefined) {
    certificatePem = await makeCertificate(keyPem, keyPath, options)
    await replaceFile(certificatePath, certificatePem, 0o644)
    created = true
  }
  return { issuer: await load(keyPem, keyPath, certificatePem, certificatePath, options.engine), created }
}

async function makeKey(path: string, engine: Engine): Promise<string> {
  const pair = await engine.subtle.generateKey(P256, true, ['sign', 'verify'])
  const der = Buffer.from(await engine.subtle.exportKey('pkcs8', pair.privateKey))
  const pem = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }).export({
    type: 'pkcs8',
    format: 'pem',
  })
  const temporary = await writeTemporary(path, pem, 0o600)
  try {
    await link(temporary, path) // unlike rename: of two servers starting at once the first one wins
    return pem
  } catch (err) {
    if (errorCode(err) !== 'EEXIST') throw err
    return await readFile(path, 'utf8')
  } finally {
    await unlink(temporary)
  }
}

async function makeCertificate(keyPem: string, keyPath: string, options: OwnRootOptions): Promise<string> {
  const { engine } = options
  const node = readKey(keyPem, keyPath)
  const pkcs8 = node.export({ type: 'pkcs8', format: 'der' })
  const privateKey = await engine.subtle.importKey('pkcs8', pkcs8, P256, false, ['sign'])
  const { d: _secret, ...publicJwk } = node.export({ format: 'jwk' })
  const publicKey = await engine.subtle.importKey('jwk', publicJwk, P256, true, ['verify'])
  const name = `O=${options.trustDomain},CN=Culvert root ${randomBytes(4).toString('hex')}`
  const notBefore = new Date(Date.now() - BACKDATE_MS)
  const notAfter = new Date(notBefore)
  notAfter.setUTCFullYear(notAfter.getUTCFullYear() + LIFETIME_YEARS)
  const certificate = await X509CertificateGenerator.create(
    {
      serialNumber: newSerial(),
      subject: name,
      issuer: name,
      notBefore,
      notAfter,
      signingKey: privateKey,
      publicKey,
      signingAlgorithm: P256,
      extensions: [
        new BasicConstraintsExtension(true, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
        await SubjectKeyIdentifierExtension.create(publicKey, false, engine),
      ],
    },
    engine,
  )
  return `${certificate.toString('pem')}\n`
}

async function load(
  keyPem: string,
  keyPath: string,
  certificatePem: string,
  certificatePath: string,
  engine: Engine,
): Promise<Issuer> {
  const key = readKey(keyPem, keyPath)
  let certificate: X509Certificate
  let node: NodeCertificate
  try {
    certificate = new X509Certificate(certificatePem)
    node = new NodeCertificate(certificatePem)
  } catch (err) {
    throw new CulvertError('PKI', `${certificatePath} is not a certificate in PEM`, { cause: err })
  }
  if (!node.checkPrivateKey(key))
    throw new CulvertError('PKI', `${keyPath} is not the key of ${certificatePath}`)
  if (certificate.notAfter.getTime() <= Date.now())
    throw new CulvertError(
      'PKI',
      `the root ${certificatePath} ended on ${certificate.notAfter.toISOString()}`,
    )
  return await issuerFrom(certificate, key, [], [`${certificate.toString('pem')}\n`], engine)
}

function readKey(pem: string, path: string): ReturnType<typeof createPrivateKey> {
  try {
    return createPrivateKey(pem)
  } catch (err) {
    throw new CulvertError('PKI', `${path} is not a private key in PEM`, { cause: err })
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (err) {
    if (errorCode(err) === 'ENOENT') return undefined
    throw new CulvertError('PKI', `${path} cannot be read`, { cause: err })
  }
}

/** Takes away what group and others may do, as after a careless copy. */
async function closeToOthers(path: string): Promise<void> {
  const { mode } = await stat(path)
  if ((mode & 0o077) !== 0) await chmod(path, 0o600)
}
