/**
 * The few objects of its own that a ca-server keeps in its cluster (a Secret, a ConfigMap, a Lease, Events): whatever is
 * created is kept as it is, by its path.
 */

/** A status and what to answer. */
export interface Answer {
  readonly status: number
  readonly body: object
}

type Plain = Record<string, unknown>

export class OtherObjects {
  readonly #objects = new Map<string, Plain>()
  #version = 1

  answer(method: string, path: string, body: Plain): Answer {
    const found = this.#objects.get(path)
    switch (method) {
      case 'GET':
        return found ? { status: 200, body: found } : refusal(404)
      case 'POST': {
        const { name } = body['metadata'] as { name: string }
        if (this.#objects.has(`${path}/${name}`)) return refusal(409)
        return { status: 201, body: this.#put(`${path}/${name}`, body) }
      }
      case 'PUT':
        return found ? { status: 200, body: this.#put(path, body) } : refusal(404)
      case 'PATCH':
        return found ? { status: 200, body: this.#put(path, merged(found, body)) } : refusal(404)
      default:
        return refusal(405)
    }
  }

  #put(path: string, object: Plain): Plain {
    const metadata = { ...(object['metadata'] as Plain), resourceVersion: `${++this.#version}` }
    const versioned = { ...object, metadata }
    this.#objects.set(path, versioned)
    return versioned
  }
}

/** RFC 7396. */
function merged(object: Plain, patch: Plain): Plain {
  const result = { ...object }
  for (const [key, value] of Object.entries(patch)) {
    const before = result[key]
    if (value === null) delete result[key]
    else result[key] = isPlain(value) ? merged(isPlain(before) ? before : {}, value) : value
  }
  return result
}

function isPlain(value: unknown): value is Plain {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function refusal(code: number): Answer {
  return { status: code, body: { kind: 'Status', status: 'Failure', code, message: `refused with ${code}` } }
}
