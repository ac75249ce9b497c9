/** How an agent grows: with the pods of its node, and with the workloads of its cluster. */
import { errorText } from '../lib/errors.ts'
import { programArgv, programEnv } from '../lab/supervisor/context.ts'
import { runOk } from '../lab/run.ts'
import type { MicroResult, Series } from './model.ts'
import { scalePods } from './scale-pods.ts'
import { scaleWorkloads } from './scale-workloads.ts'

export interface ScaleOptions {
  /** Few pods and workloads only: shows that everything works, its figures are good for nothing. */
  readonly quick?: boolean
  /** Gives up; rejects with its reason. */
  readonly signal?: AbortSignal
}

export interface ScaleResult {
  readonly series: Series[]
  readonly micro?: MicroResult[]
}

const PODS = { quick: [1, 5], whole: [1, 50, 100, 200] } as const
const WORKLOADS = { quick: [1000, 2000], whole: [1000, 10_000, 50_000, 100_000] } as const

/** Measures both. Tells `progress` what is next. Growth with pods stays without points, saying why, where it cannot be measured. */
export async function runScale(
  progress: (what: string) => void,
  options: ScaleOptions = {},
): Promise<ScaleResult> {
  const { quick: isQuick = false, signal = new AbortController().signal } = options
  const size = isQuick ? 'quick' : 'whole'
  // As an image does when it is built: the first start of all would measure the compiler.
  await runOk([...programArgv('agent/main.ts'), '--warm-up'], { env: programEnv(), signal })
  const series = await scaleWorkloads(progress, { counts: WORKLOADS[size], isQuick, signal })
  try {
    series.push(...(await scalePods(progress, { counts: PODS[size], isQuick, signal })))
  } catch (err) {
    signal.throwIfAborted()
    // What has been measured is not thrown away for it, and the report says what is missing.
    progress(`scale: growth with pods could not be measured: ${errorText(err)}`)
    series.push(notMeasured(errorText(err)))
  }
  return { series }
}

function notMeasured(why: string): Series {
  const labels = { xLabel: 'enrolled pods on the node', yLabel: '', unit: '' }
  return {
    id: 'pods',
    title: 'growth with the pods of a node',
    ...labels,
    points: [],
    about: `Not measured: ${why}`,
  }
}
