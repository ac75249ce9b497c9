/**
 * Delta aggregated discovery: one stream for each client, fed when the client takes. The "state of the world"
 * variant is not served.
 */
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from '@connectrpc/connect'
import { CulvertError } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import type {
  AggregatedDiscoveryService,
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
} from '../../lib/proto/gen/envoy/discovery_pb.js'
import { callerOf, nodeOf, type Calls } from '../calls.ts'
import type { Metrics } from '../metrics.ts'
import { DeltaStream, type DeltaStreamOptions } from './delta-stream.ts'
import type { Publisher } from './publisher.ts'
import { spelledOut } from './wire.ts'
import { nodeGroup } from './workloads.ts'

export interface DiscoveryOptions {
  readonly publisher: Publisher
  readonly calls: Calls
  readonly metrics: Metrics
  readonly log: Logger
}

/** An agent has one stream, two while it is replaced; more are a fault of the node. */
const MAX_STREAMS_PER_NODE = 16

export function discoveryService(
  options: DiscoveryOptions,
): Pick<ServiceImpl<typeof AggregatedDiscoveryService>, 'deltaAggregatedResources'> {
  const { calls, metrics } = options
  const streams = new Map<string, number>()
  return {
    async *deltaAggregatedResources(requests, context) {
      let node: string
      try {
        node = nodeOf(callerOf(context))
      } catch (err) {
        throw calls.refused(err, context, {})
      }
      const open = streams.get(node) ?? 0
      if (open >= MAX_STREAMS_PER_NODE)
        throw new ConnectError('too many discovery streams from this node', Code.ResourceExhausted)
      streams.set(node, open + 1)
      metrics.discoveryStreams.inc()
      // The generator is not resumed when its client is gone while it does not read: the signal always comes.
      onceAborted(context.signal, () => {
        metrics.discoveryStreams.dec()
        const left = streams.get(node)! - 1
        if (left > 0) streams.set(node, left)
        else streams.delete(node)
      })
      yield* serve(options, requests, context, node)
    },
  }
}

async function* serve(
  options: DiscoveryOptions,
  requests: AsyncIterable<DeltaDiscoveryRequest>,
  context: HandlerContext,
  node: string,
): AsyncGenerator<DeltaDiscoveryResponse> {
  const { publisher, calls } = options
  const log = options.log.child({ node })
  const stream = new DeltaStream(streamOptions(options, node, log))
  const isText = context.requestHeader.get('content-type')?.includes('json') ?? false
  const stopListening = publisher.onPublish(() => stream.wake())
  onceAborted(context.signal, () => {
    stopListening()
    stream.close()
  })
  let ended = false
  let failure: unknown
  const reading = (async () => {
    try {
      for await (const request of requests) stream.receive(request)
    } catch (err) {
      failure = err
    }
    ended = true
    stream.wake()
  })()
  log.info('discovery stream opened')
  try {
    while (!context.signal.aborted) {
      const news = stream.waitForNews() // asked for before looking, so that nothing falls in between
      const response = publisher.isReady ? stream.take() : undefined
      if (response) yield isText ? spelledOut(response) : response
      else if (failure !== undefined) throw failureOf(failure)
      else if (stream.hasExpired) throw new ConnectError('fell too far behind, start over', Code.Aborted)
      else if (ended && publisher.isReady) return
      else await news
    }
    // The server's own reason is for the client; the client's is not.
    if (context.signal.reason instanceof ConnectError) throw context.signal.reason
  } catch (err) {
    throw calls.refused(err, context, { node })
  } finally {
    stopListening()
    stream.close()
    log.info('discovery stream closed')
    void reading // it catches what it meets, and ends with the request
  }
}

function streamOptions(options: DiscoveryOptions, node: string, log: Logger): DeltaStreamOptions {
  const { publisher, metrics } = options
  return {
    sets: publisher.sets,
    log,
    always: [nodeGroup(node)],
    observe: {
      sent(typeUrl, resources, removed) {
        const type = shortType(typeUrl)
        metrics.discoveryResponses.inc({ type })
        metrics.discoveryResources.inc({ type, change: 'changed' }, resources)
        metrics.discoveryResources.inc({ type, change: 'removed' }, removed)
      },
      refused: typeUrl => metrics.discoveryRefused.inc({ type: shortType(typeUrl) }),
    },
  }
}

/** `istio.workload.Address` of its type URL. */
export function shortType(typeUrl: string): string {
  return typeUrl.slice(typeUrl.lastIndexOf('/') + 1)
}

/** What a client did wrong it may know; anything else that ends its requests is that it went away. */
function failureOf(err: unknown): ConnectError {
  if (err instanceof ConnectError) return err
  if (err instanceof CulvertError && err.code === 'INPUT')
    return new ConnectError(err.message, Code.ResourceExhausted)
  return new ConnectError('the request ended early', Code.Canceled)
}

function onceAborted(signal: AbortSignal, then: () => void): void {
  if (signal.aborted) then()
  else signal.addEventListener('abort', then, { once: true })
}
