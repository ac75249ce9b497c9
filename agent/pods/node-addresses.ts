/**
 * The addresses of the node that its kubelet may call pods from: all that the node's own network has, that of the bridge
 * among them which the pods hang on. What the cluster's API knows of a node is only one or two of them. They are read
 * whenever somebody needs them: with the first pod comes the bridge.
 */
import { errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import { addressesAt } from './verify.ts'

export class NodeAddresses {
  readonly #namespace: string
  readonly #log: Logger
  #complaint = ''

  /** @param namespace a path that opens the node's network namespace */
  constructor(namespace: string, log: Logger) {
    this.#namespace = namespace
    this.#log = log
  }

  /** Canonical texts. Never throws: what cannot be read is none, and complained about once. */
  read(): string[] {
    try {
      const ips = addressesAt(this.#namespace)
      this.#complaint = ''
      return ips
    } catch (err) {
      const complaint = errorText(err)
      if (complaint !== this.#complaint)
        this.#log.warn(
          { err: complaint },
          "cannot read the node's addresses: probes from some of them are not recognised",
        )
      this.#complaint = complaint
      return []
    }
  }
}
