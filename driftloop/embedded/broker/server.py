"""The listening socket: frames in, requests to their handlers in order, frames out.

As in Apache Kafka, the requests of one connection are answered one after the other, and no more are read while many
wait. A request that cannot be read ends its connection, as Kafka does it; the log says why.
"""

import asyncio
import logging
import socket
import struct
from collections import deque

from driftloop.embedded.broker.broker import Broker
from driftloop.embedded.broker.errors import Code
from driftloop.embedded.broker.handlers import Call, Handler, admin, data, groups, transactions
from driftloop.embedded.broker.messages import Api, load_apis
from driftloop.embedded.broker.wire import Message, Reader, WireError

log = logging.getLogger(__name__)

# As socket.request.max.bytes: anything larger is no request but a client of another protocol.
FRAME_BYTES_MAX = 104_857_600
# A connection reads on while this many requests wait.
MAX_WAITING_REQUESTS = 64
MAX_CONNECTIONS = 2_000
API_VERSIONS = 18

HANDLERS: dict[str, Handler] = {**data.HANDLERS, **groups.HANDLERS, **transactions.HANDLERS, **admin.HANDLERS}

_SIZE = struct.Struct(">i")
_REQUEST_HEAD = struct.Struct(">hhih")


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, broker: Broker, connections: set["Connection"]) -> None:
        self._broker = broker
        self._connections = connections
        self._buffer = bytearray()
        self._frames: deque[bytes] = deque()
        self._has_frames = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._host = ""
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._host = transport.get_extra_info("peername")[0]
        if len(self._connections) >= MAX_CONNECTIONS:
            log.warning("refused a connection of %s: there are %d", self._host, MAX_CONNECTIONS)
            transport.abort()
            return
        self._connections.add(self)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Half a response of the largest size may wait in the kernel's and our buffers; then handlers wait.
        transport.set_write_buffer_limits(high=4 << 20)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= _SIZE.size:
            (size,) = _SIZE.unpack_from(buffer, at)
            if not 0 <= size <= FRAME_BYTES_MAX:
                log.warning("%s sent a frame of %d bytes: no Kafka client, or one with TLS", self._host, size)
                self._transport.abort()
                return
            if len(buffer) - at - _SIZE.size < size:
                break
            at += _SIZE.size
            with memoryview(buffer) as view:
                self._frames.append(bytes(view[at : at + size]))
            at += size
        if at:
            del buffer[:at]
            self._has_frames.set()
        if len(self._frames) >= MAX_WAITING_REQUESTS:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self.task:
            self.task.cancel()

    async def _serve(self) -> None:
        """Answers this connection's requests until it ends."""
        try:
            while True:
                await self._has_frames.wait()
                while self._frames:
                    frame = self._frames.popleft()
                    if len(self._frames) < MAX_WAITING_REQUESTS // 2 and not self._transport.is_reading():
                        self._transport.resume_reading()
                    response = await answer(self._broker, self._host, frame)
                    if response is not None:
                        self._transport.write(response)
                        await self._may_write.wait()
                self._has_frames.clear()
        except WireError as error:
            log.warning("ended a connection of %s: %s", self._host, error)
        except Exception:
            log.exception("a request of %s failed", self._host)
        self._transport.close()


async def answer(broker: Broker, client_host: str, frame: bytes) -> bytearray | None:
    """The frame that answers a request's frame; None where the client expects none; raises WireError."""
    if len(frame) < _REQUEST_HEAD.size:
        raise WireError(f"a request of {len(frame)} bytes")
    key, version, correlation_id, client_id_size = _REQUEST_HEAD.unpack_from(frame)
    reader = Reader(memoryview(frame))
    reader.at = _REQUEST_HEAD.size
    client_id = str(reader.take(max(client_id_size, 0)), "utf-8", "replace")
    api = load_apis().get(key)
    if key == API_VERSIONS:
        assert api is not None
        return answer_versions(api, version, correlation_id)
    if api is None or not api.supports(version):
        name = api.name if api else f"interface {key}"
        raise WireError(f"{name} version {version} of client {client_id!r} is not supported")
    if api.is_flexible(version):
        reader.skip_tags()
    request = api.read_request(reader, version)
    response = await HANDLERS[api.name](broker, Call(version, client_id, client_host), request)
    return None if response is None else write_response(api, version, correlation_id, response)


def write_response(api: Api, version: int, correlation_id: int, response: Message) -> bytearray:
    out = bytearray(_SIZE.size)
    out += _SIZE.pack(correlation_id)
    # ApiVersions keeps the old header for ever, so that a client can read it before it knows our versions.
    if api.is_flexible(version) and api.key != API_VERSIONS:
        out.append(0)
    api.write_response(out, response, version)
    _SIZE.pack_into(out, 0, len(out) - _SIZE.size)
    return out


def answer_versions(api: Api, version: int, correlation_id: int) -> bytearray:
    """What we support; a client that is too new gets version 0 of it with UNSUPPORTED_VERSION, and asks again."""
    is_supported = api.supports(version)
    response = {
        "error_code": Code.NONE if is_supported else Code.UNSUPPORTED_VERSION,
        "api_keys": [
            {"api_key": one.key, "min_version": one.min_version, "max_version": one.max_version}
            for one in load_apis().values()
        ],
    }
    return write_response(api, version if is_supported else 0, correlation_id, response)


def open_socket(host: str, port: int) -> socket.socket:
    """A bound socket; raises OSError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
