/** Connection records for tests. */
import type { ConnectionRecord } from '../../agent/worker/messages.ts'

export function connectionRecord(more: Partial<ConnectionRecord> = {}): ConnectionRecord {
  return {
    id: 1,
    podUid: 'pod-1',
    direction: 'outbound',
    reason: 'mtls',
    source: {
      ip: '10.0.0.1',
      port: 40_000,
      workload: 'client',
      namespace: 'shop',
      identity: 'spiffe://cluster.local/ns/shop/sa/client',
      cluster: 'Kubernetes',
    },
    destination: {
      ip: '10.0.1.2',
      port: 8080,
      workload: 'server',
      namespace: 'shop',
      identity: 'spiffe://cluster.local/ns/shop/sa/server',
      cluster: 'Kubernetes',
    },
    hboneAddress: '10.0.1.2:15008',
    service: { namespace: 'shop', name: 'echo', hostname: 'echo.shop.svc.cluster.local' },
    bytesSent: 100,
    bytesReceived: 2000,
    openedAtMs: 1_700_000_000_000,
    durationMs: 12.4,
    ...more,
  }
}
