import { readFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { RENDERED, renderFile } from '../../manifests/render/files.ts'
import { renderKustomization } from '../../manifests/render/kustomize.ts'
import { MANIFESTS } from '../helpers/manifests.ts'

for (const { file, from } of RENDERED)
  await t.test(`${file} is what ${from} makes`, async t => {
    t.equal(readFileSync(`${MANIFESTS}${file}`, 'utf8'), renderFile(MANIFESTS, from), 'npm run manifests')
  })

/** A tree of files, and the objects that its `top` makes. */
function render(t: Test, files: Readonly<Record<string, string>>): unknown[] {
  const root = t.testdir({})
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(root, path, '..'), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  return renderKustomization(join(root, 'top')).map(document => document.toJS() as unknown)
}

const POD_TEMPLATE = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      containers:
        - name: app
          image: registry:5000/app:1
          args: [a, b]
          env:
            - {name: KEPT, value: "1"}
            - {name: CHANGED, value: old}
`

await t.test('a patch merges what has a name and replaces what has none', async t => {
  const [web] = render(t, {
    'top/kustomization.yaml': 'resources: [../base]\npatches: [{path: patch.yaml}]\n',
    'top/patch.yaml': `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      containers:
        - name: app
          args: [c]
          env:
            - {name: CHANGED, value: new}
            - {name: ADDED, value: "2"}
`,
    'base/kustomization.yaml': 'resources: [web.yaml]\n',
    'base/web.yaml': POD_TEMPLATE,
  })
  t.match(web, {
    spec: {
      template: {
        spec: {
          containers: [
            {
              name: 'app',
              args: ['c'],
              env: [
                { name: 'ADDED', value: '2' },
                { name: 'KEPT', value: '1' },
                { name: 'CHANGED', value: 'new' },
              ],
            },
          ],
        },
      },
    },
  })
})

await t.test('images, labels and generated ConfigMaps are as kustomize makes them', async t => {
  const [web, map] = render(t, {
    'top/kustomization.yaml': `
resources: [web.yaml]
images: [{name: registry:5000/app, newName: example.org/app, newTag: "2"}]
labels: [{pairs: {team: a}, includeSelectors: false}]
configMapGenerator:
  - name: files
    files: [x.json]
    options: {disableNameSuffixHash: true}
`,
    'top/web.yaml': POD_TEMPLATE,
    'top/x.json': '{}\n',
  })
  t.match(web, {
    metadata: { labels: { team: 'a' } },
    spec: { template: { spec: { containers: [{ image: 'example.org/app:2' }] } } },
  })
  t.strictSame(map, {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'files', labels: { team: 'a' } },
    data: { 'x.json': '{}\n' },
  })
})

await t.test('what is not understood is an error', async t => {
  const base = { 'top/web.yaml': POD_TEMPLATE }
  t.throws(() => render(t, { ...base, 'top/kustomization.yaml': 'replicas: []\n' }), {
    code: 'INPUT',
    message: /'replicas' is not understood/,
  })
  t.throws(
    () =>
      render(t, {
        ...base,
        'top/kustomization.yaml': 'resources: [web.yaml]\npatches: [{path: p.yaml}]\n',
        'top/p.yaml': 'apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: wed}\n',
      }),
    { message: /there is no apps\/v1 Deployment \/wed to patch/ },
  )
})
