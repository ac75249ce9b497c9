"""A peer of HBONE tunnels made of python3-h2: client or server, told what to do by lines of JSON (see foreign-peer.ts).

h2 knows nothing of sockets: here are the sockets, one thread, non-blocking, and the book-keeping of windows.
"""

import hashlib
import json
import os
import selectors
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings
import hyperframe.frame

STREAM_WINDOW = 1 << 20
CONNECTION_WINDOW = 16 << 20
MAX_FRAME = 1 << 16

# h2 takes a GOAWAY for the end of everything. It is the end of new streams only (RFC 9113 section 6.8).
_Machine = h2.connection.H2ConnectionStateMachine
_State, _Input = h2.connection.ConnectionState, h2.connection.ConnectionInputs
for _open in (_State.CLIENT_OPEN, _State.SERVER_OPEN, _State.IDLE):
    _Machine._transitions[(_open, _Input.RECV_GOAWAY)] = (None, _open)


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


class Stream:
    def __init__(self, link, stream_id, number):
        self.link = link
        self.stream_id = stream_id
        self.number = number
        self.outgoing = b""
        self.wants_end = False
        self.tells_sent = False
        self.sent = hashlib.sha256()
        self.sent_bytes = 0
        self.got = hashlib.sha256()
        self.got_bytes = 0
        self.is_paused = False
        self.is_echo = False
        self.is_over = False
        self.untaken = 0  # bytes that were not given back to the windows

    def take(self, event):
        if self.got_bytes == 0 and event.data:
            tell("data", id=self.number)
        self.got.update(event.data)
        self.got_bytes += len(event.data)
        if self.is_echo:
            self.outgoing += event.data
        self.untaken += event.flow_controlled_length
        self.give_credit()

    def give_credit(self):
        if self.is_paused or self.untaken == 0:
            return
        self.link.h2.acknowledge_received_data(self.untaken, self.stream_id)
        self.untaken = 0

    def got_end(self):
        tell("end", id=self.number, bytes=self.got_bytes, sha256=self.got.hexdigest())
        if self.is_echo:
            self.wants_end = True

    def pump(self):
        """Sends what the windows allow."""
        while self.outgoing and not self.is_over:
            room = min(
                self.link.h2.local_flow_control_window(self.stream_id),
                self.link.h2.max_outbound_frame_size,
                len(self.outgoing),
            )
            if room <= 0 or self.link.backlog() > CONNECTION_WINDOW:
                return
            piece, self.outgoing = self.outgoing[:room], self.outgoing[room:]
            self.sent.update(piece)
            self.sent_bytes += room
            self.link.h2.send_data(self.stream_id, piece)
        if self.is_over or self.outgoing:
            return
        if self.tells_sent:
            self.tells_sent = False
            tell("sent", id=self.number, bytes=self.sent_bytes, sha256=self.sent.hexdigest())
        if self.wants_end:
            self.wants_end = False
            self.is_over = True
            self.link.h2.end_stream(self.stream_id)


class Link:
    """One connection."""

    def __init__(self, peer, sock):
        self.peer = peer
        self.sock = sock
        self.is_leaving = False  # a GOAWAY was said or heard
        self.last_taken = 0x7FFFFFFF  # what comes after it is not looked at
        self.streams = {}
        self.out = bytearray()
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=peer.is_client,
                header_encoding="utf-8",
                # h2's checks know no CONNECT without :scheme and :path (RFC 9113 section 8.5).
                validate_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        codes = h2.settings.SettingCodes
        changes = {codes.INITIAL_WINDOW_SIZE: STREAM_WINDOW, codes.MAX_FRAME_SIZE: MAX_FRAME}
        if not peer.is_client:
            changes[codes.MAX_CONCURRENT_STREAMS] = peer.max_streams
        self.h2.clear_outbound_data_buffer = lambda: None  # as a GOAWAY would do
        self.h2.local_settings = h2.settings.Settings(client=peer.is_client, initial_values=changes)
        self.h2.max_inbound_frame_size = MAX_FRAME
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(CONNECTION_WINDOW - 65535)

    def backlog(self):
        return len(self.out)

    def open(self, number, authority):
        stream_id = self.h2.get_next_available_stream_id()
        stream = self.streams[stream_id] = Stream(self, stream_id, number)
        self.h2.send_headers(stream_id, [(":method", "CONNECT"), (":authority", authority), ("forwarded", 'for="10.9.9.9:1"')])
        return stream

    def goaway(self):
        self.is_leaving = True
        # Not close_connection(), after which h2 sends nothing more.
        last = self.last_taken = self.h2.highest_inbound_stream_id
        self.out += self.h2.data_to_send()
        self.out += hyperframe.frame.GoAwayFrame(0, last_stream_id=last, error_code=0).serialize()

    def readable(self):
        while True:
            try:
                data = self.sock.recv(1 << 18)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return True
            except (OSError, ssl.SSLError):
                return False
            if not data:
                return False
            for event in self.h2.receive_data(data):
                self.handle(event)

    def handle(self, event):
        if (getattr(event, "stream_id", None) or 0) > self.last_taken:
            return
        stream = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.RequestReceived):
            headers = dict(event.headers)
            stream = self.streams[event.stream_id] = self.peer.requested(self, event.stream_id)
            tell("request", id=stream.number, authority=headers.get(":authority"))
        elif isinstance(event, h2.events.ResponseReceived):
            tell("status", id=stream.number, status=int(dict(event.headers)[":status"]))
        elif isinstance(event, h2.events.DataReceived):
            stream.take(event)
        elif isinstance(event, h2.events.StreamEnded):
            stream.got_end()
        elif isinstance(event, h2.events.StreamReset):
            stream.is_over = True
            tell("reset", id=stream.number, code=int(event.error_code))
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.is_leaving = True
            tell("goaway", code=int(event.error_code))

    def write(self):
        for stream in self.streams.values():
            stream.pump()
        self.out += self.h2.data_to_send()
        while self.out:
            try:
                sent = self.sock.send(self.out[: 1 << 18])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except (OSError, ssl.SSLError):
                self.out.clear()
                return
            del self.out[:sent]


class Peer:
    def __init__(self, start):
        self.is_client = start["role"] == "client"
        host, _, port = start["address"].rpartition(":")
        self.address = (host.strip("[]"), int(port))
        self.max_streams = start["maxStreams"]
        self.context = self.tls(start)
        self.selector = selectors.DefaultSelector()
        self.links = set()
        self.numbers = {}
        self.lines = b""
        os.set_blocking(0, False)
        self.selector.register(0, selectors.EVENT_READ)
        if self.is_client:
            self.current = self.dial()
        else:
            family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
            self.listener = socket.create_server(self.address, family=family, backlog=256)
            self.selector.register(self.listener, selectors.EVENT_READ)
        tell("ready")

    def tls(self, start):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if self.is_client else ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # identities are URIs
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=start["roots"])
        context.set_alpn_protocols(["h2"])
        memory = os.memfd_create("material")  # load_cert_chain() wants a file
        os.write(memory, (start["key"] + start["chain"]).encode())
        context.load_cert_chain(f"/proc/self/fd/{memory}")
        os.close(memory)
        return context

    def dial(self):
        raw = socket.create_connection(self.address)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.adopt(self.context.wrap_socket(raw))

    def accept(self):
        raw, _ = self.listener.accept()
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.adopt(self.context.wrap_socket(raw, server_side=True))
        except (OSError, ssl.SSLError):
            raw.close()

    def adopt(self, sock):
        assert sock.selected_alpn_protocol() == "h2"
        sock.setblocking(False)
        link = Link(self, sock)
        self.links.add(link)
        self.selector.register(sock, selectors.EVENT_READ, link)
        return link

    def drop(self, link):
        self.links.discard(link)
        link.is_leaving = True
        self.selector.unregister(link.sock)
        link.sock.close()
        for stream in link.streams.values():
            if not stream.is_over:
                tell("reset", id=stream.number, code=-1)

    def requested(self, link, stream_id):
        number = len(self.numbers) + 1
        stream = self.numbers[number] = Stream(link, stream_id, number)
        return stream

    def do(self, line):
        op = line["op"]
        if op == "goaway":
            for link in self.links:
                link.goaway()
            return
        if op == "connect":
            if self.current.is_leaving:
                self.current = self.dial()
            self.numbers[line["id"]] = self.current.open(line["id"], line["authority"])
            return
        stream = self.numbers[line["id"]]
        if op == "answer":
            is_open = line["status"] == 200
            stream.link.h2.send_headers(
                stream.stream_id, [(":status", str(line["status"]))], end_stream=not is_open
            )
            stream.is_over = not is_open
        elif op == "send":
            stream.outgoing += os.urandom(line["bytes"])
            stream.tells_sent = True
        elif op == "end":
            stream.wants_end = True
        elif op == "echo":
            stream.is_echo = True
        elif op == "pause":
            stream.is_paused = True
        elif op == "resume":
            stream.is_paused = False
            stream.give_credit()
        elif op == "reset":
            stream.is_over = True
            stream.link.h2.reset_stream(stream.stream_id, line["code"])

    def commands(self):
        data = os.read(0, 1 << 16)
        if not data:
            sys.exit(0)
        *lines, self.lines = (self.lines + data).split(b"\n")
        for line in lines:
            self.do(json.loads(line))

    def run(self):
        while True:
            for key, _ in self.selector.select():
                if key.fd == 0:
                    self.commands()
                elif key.data is None:
                    self.accept()
                elif not key.data.readable():
                    self.drop(key.data)
            for link in list(self.links):
                link.write()
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.out else 0)
                self.selector.modify(link.sock, wanted, link)


Peer(json.loads(sys.stdin.buffer.raw.readline())).run()
