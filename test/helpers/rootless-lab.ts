/** Run by an ordinary user: starts the default lab, looks at it from inside, takes it down, and says what it saw. */
import { existsSync } from 'node:fs'
import { packetsOf } from '../../lab/capture/pcap.ts'
import { downLab, openLab, startLab } from '../../lab/lab.ts'

const name = process.argv[2] ?? 'default'
await startLab({ name })
const lab = openLab(name)
const server = await lab.pod('server')
const capture = await lab.capture('node-a')
const answers = []
for (const ip of server.ips) {
  const url = `http://${ip.includes(':') ? `[${ip}]` : ip}:8080/`
  answers.push(await lab.exec('client', ['curl', '-sS', '-g', '-m', '5', url]))
}
const packets = [...packetsOf(await capture.stop())]
const { pods, rootless } = await lab.status()
const exit = await lab.exec('client', ['sh', '-c', 'pwd; exit 9'], { cwd: '/usr' })
const down = await downLab(name)
process.stdout.write(
  JSON.stringify({
    rootless,
    mesh: Object.fromEntries(pods.map(pod => [pod.name, pod.mesh])),
    seenBy: answers.map(({ code, stdout }) =>
      code === 0 ? (JSON.parse(stdout.toString()) as unknown) : code,
    ),
    packets: packets.length,
    isPlain: packets.some(({ bytes }) => bytes.includes('GET /')),
    exit: exit.code,
    down,
    isGone: !existsSync(lab.paths.run),
  }),
)
