/** The implementations of WebCrypto to choose from; apart from `engine.ts` so that naming them loads neither. */

export const ENGINE_NAMES = ['peculiar', 'node'] as const
export type EngineName = (typeof ENGINE_NAMES)[number]
