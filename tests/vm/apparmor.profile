# What the tests of labels confine a container with: all is allowed, but not /secret.
profile ctr-test flags=(attach_disconnected, mediate_deleted) {
  file,
  network,
  capability,
  mount,
  remount,
  umount,
  pivot_root,
  signal,
  ptrace,
  unix,
  deny /secret rwklx,
}
