/** What a discovery stream needs to know of one type of resource: the stream does not look into them. */
export interface ResourceKind {
  readonly typeUrl: string
  /**
   * Adds or replaces. Throws a `CulvertError` when the bytes are malformed; nothing has changed then. `'unwanted'`:
   * it is not held, and one of that name that was is not any more.
   */
  put(name: string, bytes: Uint8Array): 'unwanted' | void
  /** Removes, if it is there. */
  remove(name: string): void
  /** The first full picture of this type has been applied. */
  settled(): void
  /** Set when resources are asked for by name instead of as a whole. */
  readonly wants?: NamedWants
}

/** The names that are asked for, and what becomes of them. */
export interface NamedWants {
  /** Every name gets an answer of its own, also when the server has nothing new to tell of it. */
  readonly isAnsweredByName: boolean
  /** Tells whom to turn to. */
  attach(link: WantsLink): void
  /** A stream begins: all names that are wanted, to be asked for with its first request. */
  begin(): string[]
  /** The stream stands: what is asked is answered. */
  opened(): void
  closed(): void
  /** Names to ask for and to give up since the last time; undefined when there are none. */
  take(): { readonly subscribe: string[]; readonly unsubscribe: string[] } | undefined
  /** Takes the answer to a name; false when it is not one that could have been asked for, but a resource's own. */
  answer(name: string, isFound: boolean): boolean
  /** A response has been applied to its end. */
  applied(): void
}

export interface WantsLink {
  /** There is something to take. */
  ask(): void
  /** A resource is not held any more. */
  forget(name: string): void
}
