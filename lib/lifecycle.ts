/** How a program is told to stop. */

// A terminal's Ctrl-C and a supervisor's SIGTERM often arrive together and mean one wish.
const SAME_WISH_MS = 500

export interface Shutdown {
  /** Aborts at the first wish to stop; its `reason` is the text of that wish. */
  readonly signal: AbortSignal
  /** Why the program stops; undefined while it runs. */
  readonly reason: string | undefined
  /** Asks to stop from inside: `POST /quitquitquit`, a part that cannot go on. Later wishes change nothing. */
  request(reason: string): void
  /** Stops listening for signals. */
  dispose(): void
}

/**
 * Listens for SIGTERM and SIGINT. The first begins an orderly stop; half a second later the signals mean again what they
 * mean to any process, so that a second one ends it at once.
 */
export function shutdownSignal(): Shutdown {
  const controller = new AbortController()
  let reason: string | undefined
  const request = (why: string) => {
    if (controller.signal.aborted) return
    reason = why
    controller.abort(why)
    setTimeout(dispose, SAME_WISH_MS).unref()
  }
  const onSignal = (name: NodeJS.Signals) => request(name)
  const dispose = () => {
    process.off('SIGTERM', onSignal)
    process.off('SIGINT', onSignal)
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  return {
    signal: controller.signal,
    get reason() {
      return reason
    },
    request,
    dispose,
  }
}
