"""Ways over from other libraries: their interfaces, on the channels of this one."""
