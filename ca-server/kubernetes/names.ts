/** What the ca-server's own objects are called. */

export const LABELS = { 'app.kubernetes.io/name': 'culvert', 'app.kubernetes.io/component': 'ca-server' }

/** The key of the published ConfigMap under which the roots stand, PEM. */
export const ROOT_KEY = 'root-cert.pem'

export const ROOT_SECRET = 'culvert-ca-root'
export const ROOT_CONFIG_MAP = 'culvert-root'
export const LEASE = 'culvert-ca'
