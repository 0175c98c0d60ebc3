"""The local system: the ordinary stacks, deployed into an AWS emulator on this machine."""
