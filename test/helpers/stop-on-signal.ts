/** Begins to stop at the first signal, and then never ends by itself. */
import { shutdownSignal } from '../../lib/lifecycle.ts'

const shutdown = shutdownSignal()
shutdown.signal.addEventListener('abort', () => process.send?.({ reason: shutdown.reason }))
setInterval(() => undefined, 60_000)
process.send?.('running')
