/** What a discovery stream needs to know of one type of resource: the stream does not look into them. */
export interface ResourceKind {
  readonly typeUrl: string
  /** Adds or replaces. Throws a `CulvertError` when the bytes are malformed; nothing has changed then. */
  put(name: string, bytes: Uint8Array): void
  /** Removes, if it is there. */
  remove(name: string): void
  /** The first full picture of this type has been applied. */
  settled(): void
}
