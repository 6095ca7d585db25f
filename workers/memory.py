"""Say how much memory this process has."""


def resident_bytes() -> int:
    """The memory that this process has; 0 where it cannot be read: a figure is no reason to fail."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0
