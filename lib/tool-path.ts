/** Where system programs are: what they are in is often not on the path of an ordinary user. */

const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** The path that system tools are found by: the user's own, then where distributions put them. */
export function toolPath(): string {
  return [process.env['PATH'], SYSTEM_PATH].filter(Boolean).join(':')
}

/** The environment of this process with a path that has the system tools. */
export function toolEnv(): NodeJS.ProcessEnv {
  return { ...process.env, PATH: toolPath() }
}
