"""A separate network for the tests, which has only loopback.

Standard library only, run as `python -I -S`, because every program under test starts through it.

    namespace.py keep FD             make the namespace and hand out listening sockets on FD
    namespace.py enter NET USER -- PROGRAM ARGUMENTS   become PROGRAM inside it
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_IFREQ = "16sH22x"
_NO_FD = -1

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(outcome: int, what: str) -> None:
    if outcome != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _make_namespace() -> list[int]:
    """Enter an empty network; returns its descriptors, with the user namespace's if needed."""
    names = ["net"]
    if _libc.unshare(_CLONE_NEWNET) != 0:
        # Without privilege, a user namespace comes first; in it the user keeps its id.
        uid, gid = os.geteuid(), os.getegid()
        _checked(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET), "unshare")
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as map_file:
                map_file.write(text)
        names.append("user")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack(_IFREQ, b"lo", 0)
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, request)
        flags = struct.unpack(_IFREQ, answer)[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack(_IFREQ, b"lo", flags | _IFF_UP))
    return [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in names]


def _listener() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    return listener


def _keep(fd: int) -> None:
    with socket.socket(fileno=fd) as owner:
        try:
            namespaces = _make_namespace()
        except OSError as error:
            owner.sendall((error.strerror or str(error)).encode())
            return
        socket.send_fds(owner, [b"\0"], namespaces)
        while owner.recv(1):
            with _listener() as listener:
                socket.send_fds(owner, [b"\0"], [listener.fileno()])


def _enter(net: int, user: int, program: list[str]) -> None:
    # The user namespace comes first, because it allows entering the other one.
    for fd in (user, net):
        if fd != _NO_FD:
            _checked(_libc.setns(fd, 0), "setns")
            os.close(fd)
    os.execvp(program[0], program)


def main(arguments: list[str]) -> None:
    """Run the command in the first argument."""
    if arguments[0] == "keep":
        _keep(int(arguments[1]))
    else:
        _enter(int(arguments[1]), int(arguments[2]), arguments[4:])


if __name__ == "__main__":
    main(sys.argv[1:])
