// Both ends on Go's net/http, from its standard library alone. `ends serve`: the first part of the path says in what way to
// answer, the last is the request's id, which goes back in X-Answers. `ends ask BASE NAME`: many requests over several
// connections, with a line for each: PATH METHOD STATUS BYTES whole|cut|failed.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	if os.Args[1] == "serve" {
		panic(http.ListenAndServe("[::]:8080", http.HandlerFunc(answer)))
	}
	ask(os.Args[2], os.Args[3])
}

func answer(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	w.Header().Set("X-Answers", parts[len(parts)-1])
	sized := func(status int, body []byte) {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(status)
		w.Write(body)
	}
	pieces := func(count, size int, pause time.Duration) {
		for i := 0; i < count; i++ {
			w.Write(bytes.Repeat([]byte("p"), size))
			w.(http.Flusher).Flush()
			time.Sleep(pause)
		}
	}
	switch parts[1] {
	case "large":
		sized(200, bytes.Repeat([]byte("x"), 200000))
	case "chunked":
		pieces(5, 6000, time.Millisecond)
	case "none":
		w.WriteHeader(204)
	case "notmod":
		w.Header().Set("ETag", `"1"`)
		w.WriteHeader(304)
	case "close":
		connection, buffered, _ := w.(http.Hijacker).Hijack()
		fmt.Fprintf(buffered, "HTTP/1.1 200 OK\r\nX-Answers: %s\r\nConnection: close\r\n\r\n", parts[len(parts)-1])
		for i := 0; i < 2; i++ {
			buffered.Write(bytes.Repeat([]byte("p"), 10000))
			buffered.Flush()
			time.Sleep(5 * time.Millisecond)
		}
		connection.Close()
	case "slow":
		w.Header().Set("Content-Length", "5000")
		pieces(5, 1000, 20*time.Millisecond)
	case "echo":
		body, _ := io.ReadAll(r.Body)
		sized(200, body)
	case "early":
		w.Header().Set("Connection", "close")
		sized(413, []byte("big\n"))
	case "reset":
		w.Header().Set("Content-Length", "100000")
		w.Write(bytes.Repeat([]byte("r"), 30000))
		w.(http.Flusher).Flush()
		connection, _, _ := w.(http.Hijacker).Hijack()
		connection.(*net.TCPConn).SetLinger(0)
		connection.Close()
	default:
		sized(200, []byte("hello"))
	}
}

func ask(base, name string) {
	client := http.Client{
		Timeout:       30 * time.Second,
		Transport:     &http.Transport{MaxConnsPerHost: 12, MaxIdleConnsPerHost: 12, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	kinds := []string{"small", "chunked", "small", "none", "large", "echo", "notmod", "small", "slow", "close", "small", "reset"}
	var all sync.WaitGroup
	for worker := 0; worker < 16; worker++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := 0; i < 24; i++ {
				kind := kinds[(i+worker)%len(kinds)]
				method, body := "GET", []byte(nil)
				if kind == "echo" {
					method, body = "POST", bytes.Repeat([]byte("e"), 1000*(i+1))
				} else if i%5 == 4 && kind != "reset" && kind != "slow" && kind != "close" && kind != "chunked" {
					method = "HEAD"
				}
				path := fmt.Sprintf("/%s/%s-%d-%d", kind, name, worker, i)
				request, _ := http.NewRequest(method, base+path, bytes.NewReader(body))
				if body == nil {
					request.Body = nil
				}
				response, err := client.Do(request)
				if err != nil {
					fmt.Println(path, method, 0, 0, "failed")
					continue
				}
				got, err := io.Copy(io.Discard, response.Body)
				response.Body.Close()
				state := "whole"
				if err != nil {
					state = "cut"
				} else if id := response.Header.Get("X-Answers"); !strings.HasSuffix(path, "/"+id) {
					state = "wrong"
				}
				fmt.Println(path, method, response.StatusCode, got, state)
			}
		}()
	}
	all.Wait()
}
