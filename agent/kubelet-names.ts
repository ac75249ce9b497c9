/** What the kubelet's process is called, cut to 15 characters by the kernel: by itself, or inside a distribution's one program. */
export const KUBELET_NAMES: readonly string[] = [
  'kubelet',
  'k3s-server',
  'k3s-agent',
  'k3s',
  'k0s',
  'kubelite',
  'rke2',
]
