// A peer of HBONE tunnels made of Go's net/http, with its own HTTP/2: client or server, told what to do by lines of JSON
// (see foreign-peer.ts). Standard library only.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"sync"
)

type start struct {
	Role, Address, Key, Chain, Roots string
	MaxStreams                       uint32
}

type command struct {
	Op        string
	ID        int
	Authority string
	Status    int
	Bytes     int
	Code      uint32
}

type event struct {
	Event     string  `json:"event"`
	ID        int     `json:"id,omitempty"`
	Authority string  `json:"authority,omitempty"`
	Status    int     `json:"status,omitempty"`
	Bytes     *int    `json:"bytes,omitempty"`
	Sha256    string  `json:"sha256,omitempty"`
	Code      *uint32 `json:"code,omitempty"`
	Error     string  `json:"error,omitempty"`
}

var output sync.Mutex

func tell(e event) {
	output.Lock()
	defer output.Unlock()
	line, _ := json.Marshal(e)
	os.Stdout.Write(append(line, '\n'))
}

// stream is one tunnel, whichever side it is on.
type stream struct {
	id       int
	commands chan command // what its writer does, in order
	status   chan int     // server: the answer
	abort    func()       // out of order
	isEcho   bool

	mu     sync.Mutex
	resume *sync.Cond
	paused bool
}

func newStream(id int) *stream {
	s := &stream{id: id, commands: make(chan command, 16), status: make(chan int, 1)}
	s.resume = sync.NewCond(&s.mu)
	return s
}

func (s *stream) pause(paused bool) {
	s.mu.Lock()
	s.paused = paused
	s.mu.Unlock()
	s.resume.Broadcast()
}

var codes = map[string]uint32{
	"NO_ERROR": 0, "PROTOCOL_ERROR": 1, "INTERNAL_ERROR": 2, "FLOW_CONTROL_ERROR": 3, "SETTINGS_TIMEOUT": 4,
	"STREAM_CLOSED": 5, "FRAME_SIZE_ERROR": 6, "REFUSED_STREAM": 7, "CANCEL": 8, "COMPRESSION_ERROR": 9,
	"CONNECT_ERROR": 10, "ENHANCE_YOUR_CALM": 11,
}

var streamError = regexp.MustCompile(`stream ID \d+; ([A-Z_]+)`)

func resetCode(err error) uint32 {
	if match := streamError.FindStringSubmatch(err.Error()); match != nil {
		return codes[match[1]]
	}
	// The server's side does not say with which code.
	return 0xffffffff
}

// read takes what comes, to the end or a reset; echo, when wanted, is called with each piece.
func (s *stream) read(body io.Reader, echo func([]byte)) {
	got, total := sha256.New(), 0
	buffer := make([]byte, 64<<10)
	for {
		s.mu.Lock()
		for s.paused {
			s.resume.Wait()
		}
		s.mu.Unlock()
		n, err := body.Read(buffer)
		if n > 0 {
			if total == 0 {
				tell(event{Event: "data", ID: s.id})
			}
			total += n
			got.Write(buffer[:n])
			if s.isEcho {
				echo(buffer[:n])
			}
		}
		if err == io.EOF {
			tell(event{Event: "end", ID: s.id, Bytes: &total, Sha256: sum(got)})
			return
		}
		if err != nil {
			code := resetCode(err)
			tell(event{Event: "reset", ID: s.id, Code: &code, Error: err.Error()})
			return
		}
	}
}

// write does what it is told until the end.
func (s *stream) write(body io.Writer, flush func()) error {
	sent, total := sha256.New(), 0
	for c := range s.commands {
		if c.Op == "end" {
			return nil
		}
		for left := c.Bytes; left > 0; {
			piece := make([]byte, min(left, 64<<10))
			rand.Read(piece)
			if _, err := body.Write(piece); err != nil {
				return err
			}
			flush()
			sent.Write(piece)
			left -= len(piece)
			total += len(piece)
		}
		bytes := total
		tell(event{Event: "sent", ID: s.id, Bytes: &bytes, Sha256: sum(sent)})
	}
	return nil
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

func sum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

func (s *stream) do(c command) {
	switch c.Op {
	case "answer":
		s.status <- c.Status
	case "send", "end":
		s.commands <- c
	case "echo":
		s.isEcho = true
	case "pause", "resume":
		s.pause(c.Op == "pause")
	case "reset":
		s.abort()
	}
}

// === client

type client struct {
	transport *http.Transport
	address   string
}

func newClient(config *tls.Config, address string) *client {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, address)
	}
	transport := &http.Transport{
		TLSClientConfig:    config,
		ForceAttemptHTTP2:  true,
		DialContext:        dial,
		DisableCompression: true,
	}
	return &client{transport, address}
}

func (c *client) connect(s *stream, authority string) {
	reader, writer := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	s.abort = func() {
		cancel()
		writer.CloseWithError(context.Canceled) // it looks at its context between two reads of the body
	}
	target := &url.URL{Scheme: "https", Host: c.address}
	request := (&http.Request{Method: http.MethodConnect, URL: target, Host: authority, Header: http.Header{}, Body: reader, ContentLength: -1}).WithContext(ctx)
	go func() {
		if s.write(writer, func() {}) == nil {
			writer.Close()
		}
	}()
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		tell(event{Event: "failed", ID: s.id, Error: err.Error()})
		return
	}
	if response.ProtoMajor != 2 {
		tell(event{Event: "failed", ID: s.id, Error: "no HTTP/2"})
		return
	}
	tell(event{Event: "status", ID: s.id, Status: response.StatusCode})
	if response.StatusCode == http.StatusOK {
		s.read(response.Body, nil)
	} else {
		response.Body.Close()
	}
}

// === server

type server struct {
	config  *tls.Config
	address string
	request func(*stream)

	mu        sync.Mutex
	isLeaving bool
	last      int
}

func (v *server) serve() error {
	listener, err := net.Listen("tcp", v.address)
	if err != nil {
		return err
	}
	here := &http.Server{Handler: http.HandlerFunc(v.handle), TLSConfig: v.config, ErrorLog: log.New(io.Discard, "", 0)}
	go here.ServeTLS(listener, "", "")
	return nil
}

// goaway is said with the next answer: Shutdown would close the listener too.
func (v *server) goaway() {
	v.mu.Lock()
	v.isLeaving = true
	v.mu.Unlock()
}

func (v *server) handle(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	v.last++
	s := newStream(v.last)
	v.mu.Unlock()
	aborted := make(chan struct{})
	s.abort = func() { close(aborted) }
	v.request(s)
	tell(event{Event: "request", ID: s.id, Authority: r.Host})
	status := <-s.status
	v.mu.Lock()
	if v.isLeaving {
		v.isLeaving = false
		w.Header().Set("Connection", "close") // net/http makes a GOAWAY of it
	}
	v.mu.Unlock()
	w.WriteHeader(status)
	if status != http.StatusOK {
		return
	}
	flush := w.(http.Flusher).Flush
	flush()
	done := make(chan error, 2)
	go func() {
		defer func() {
			if recover() != nil { // written to after the handler has returned
				done <- errors.New("gone")
			}
		}()
		done <- s.write(w, flush)
	}()
	read := make(chan struct{})
	go func() {
		s.read(r.Body, func(piece []byte) {
			w.Write(piece)
			flush()
		})
		if s.isEcho {
			s.commands <- command{Op: "end"}
		}
		close(read)
	}()
	// The stream ends when the handler returns, and not before: no half-close from this side.
	select {
	case <-done:
	case <-aborted:
		panic(http.ErrAbortHandler)
	}
	select {
	case <-read:
	case <-aborted:
		panic(http.ErrAbortHandler)
	}
}

func tlsConfig(s start) (*tls.Config, error) {
	certificate, err := tls.X509KeyPair([]byte(s.Chain), []byte(s.Key))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(s.Roots)) {
		return nil, errors.New("no roots")
	}
	verify := func(raw [][]byte, _ [][]*x509.Certificate) error {
		leaf, err := x509.ParseCertificate(raw[0])
		if err != nil {
			return err
		}
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		return err
	}
	return &tls.Config{
		Certificates:          []tls.Certificate{certificate},
		MinVersion:            tls.VersionTLS13,
		NextProtos:            []string{"h2"},
		InsecureSkipVerify:    true, // identities are URIs: the chain is verified below, no name is
		ClientAuth:            tls.RequireAnyClientCert,
		VerifyPeerCertificate: verify,
	}, nil
}

func main() {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 1<<20)
	input.Scan()
	var begin start
	if err := json.Unmarshal(input.Bytes(), &begin); err != nil {
		log.Fatal(err)
	}
	config, err := tlsConfig(begin)
	if err != nil {
		log.Fatal(err)
	}
	var mu sync.Mutex
	streams := map[int]*stream{}
	keep := func(s *stream) {
		mu.Lock()
		streams[s.id] = s
		mu.Unlock()
	}
	var here *client
	var there *server
	if begin.Role == "client" {
		here = newClient(config, begin.Address)
	} else {
		there = &server{config: config, address: begin.Address, request: keep}
		if err := there.serve(); err != nil {
			log.Fatal(err)
		}
	}
	tell(event{Event: "ready"})
	for input.Scan() {
		var c command
		if err := json.Unmarshal(input.Bytes(), &c); err != nil {
			log.Fatal(fmt.Errorf("%s: %w", strconv.Quote(input.Text()), err))
		}
		if c.Op == "goaway" {
			there.goaway()
			continue
		}
		if c.Op == "connect" {
			s := newStream(c.ID)
			keep(s)
			go here.connect(s, c.Authority)
			continue
		}
		mu.Lock()
		s := streams[c.ID]
		mu.Unlock()
		s.do(c)
	}
}
