/** Asking a lab's supervisor; its errors are thrown here as they were there. */
import { CulvertError, type ErrorCode } from '../../lib/errors.ts'
import { requestUnix, type UnixRequest } from '../http.ts'
import type { LabPaths } from '../names.ts'

/** Adding or deleting a pod and replacing an agent take their time. */
const DEFAULT_TIMEOUT_MS = 120_000

/** Sends one request and gives the answer's JSON. Throws what the supervisor throws, `UNREACHABLE` when there is none. */
export async function askSupervisor(paths: LabPaths, request: UnixRequest): Promise<unknown> {
  const { status, body } = await requestUnix(paths.control, { timeoutMs: DEFAULT_TIMEOUT_MS, ...request })
  const value: unknown = JSON.parse(body)
  if (status === 200) return value
  const { code, message, hint } = value as { code: ErrorCode; message: string; hint?: string }
  throw new CulvertError(code, message, hint === undefined ? {} : { hint })
}
