/** What the ca-server's own objects are called. */

export const LABELS = { 'app.kubernetes.io/name': 'culvert', 'app.kubernetes.io/component': 'ca-server' }

/** The key of the published ConfigMap under which the roots stand, PEM. */
export const ROOT_KEY = 'root-cert.pem'
