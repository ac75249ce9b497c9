import t from 'tap'
import { formatSpiffe, parseSpiffe } from '../../lib/spiffe.ts'
t.strictSame(parseSpiffe(formatSpiffe('cluster.local', 'a', 'b')), {
  trustDomain: 'cluster.local',
  namespace: 'a',
  serviceAccount: 'b',
})
