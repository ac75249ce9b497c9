/**
 * Which test files are counted for coverage. Counting makes what is hot many times slower: tests that start whole labs,
 * carry traffic as fast as it goes or wait for peers are left out, those of the parts are not.
 */
const NOT_COUNTED = /^test\/(?:bench|conformance|fuzz|interop|netns|soak)\//

/** All files (`[]`), or none. */
export default (test: string): [] | null => (NOT_COUNTED.test(test) ? null : [])
