module github.com/tfdrift/tfdrift-falco

go 1.26.0

require (
	github.com/agext/levenshtein v1.2.3 // which setting was meant by a misspelt one
	github.com/alecthomas/kong v1.17.0 // the bridge's flags and configuration file
	github.com/bmatcuk/doublestar/v4 v4.10.4 // globs with ** over states
	github.com/cenkalti/backoff/v5 v5.0.3 // pauses between connections to Falco
	github.com/cespare/xxhash/v2 v2.3.0 // hashes that tell instances and files apart
	github.com/falcosecurity/client-go v0.6.1 // Falco's gRPC output, up to Falco 0.43
	github.com/falcosecurity/plugin-sdk-go v0.8.3 // the plugin's interface to Falco
	github.com/fsnotify/fsnotify v1.10.1 // notices of changed files
	github.com/go-json-experiment/json v0.0.0-20260820222146-c27c302e5fc3 // JSON as a stream and with raw values
	github.com/google/go-cmp v0.7.0 // tests: readable differences
	github.com/google/uuid v1.6.0 // client ids, and the demo's event ids
	github.com/gorilla/websocket v1.5.3 // what melody stands on: its connections and close codes; the tests' client
	github.com/olahol/melody v1.4.0 // WebSocket sessions
	github.com/prometheus/client_golang v1.25.0 // metrics
	github.com/rogpeppe/go-internal v1.16.0 // tests: txtar archives
	go.uber.org/goleak v1.3.0 // tests: no goroutine stays behind
	go.yaml.in/yaml/v3 v3.0.6 // configuration and rules files
	golang.org/x/sync v0.24.0 // groups of goroutines with one error
	golang.org/x/text v0.43.0 // records in UTF-16
	golang.org/x/time v0.14.0 // how many messages a client may send
	google.golang.org/grpc v1.85.0 // what client-go stands on; the tests' server
	google.golang.org/protobuf v1.36.12 // tests: recorded messages
	modernc.org/sqlite v1.61.1 // the journal, without cgo
	pgregory.net/rapid v1.3.0 // tests: properties
)

require (
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/dustin/go-humanize v1.1.0 // indirect
	github.com/golang/protobuf v1.5.4 // indirect
	github.com/mattn/go-isatty v0.0.24 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/ncruces/go-strftime v1.1.0 // indirect
	github.com/prometheus/client_model v0.6.3 // indirect
	github.com/prometheus/common v0.72.0 // indirect
	github.com/prometheus/procfs v0.22.0 // indirect
	github.com/remyoudompheng/bigfft v0.0.0-20230129092748-24d4a6f8daec // indirect
	golang.org/x/net v0.61.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/tools v0.52.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261019180522-ce908d29299b // indirect
	modernc.org/libc v1.79.0 // indirect
	modernc.org/mathutil v1.7.1 // indirect
	modernc.org/memory v1.12.1 // indirect
)
