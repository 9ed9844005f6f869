// Package falco takes in what happened: Falco's alerts by http_output and by gRPC, and CloudTrail records read without
// Falco.
//
// In come requests, gRPC responses and records; out go journal.Alerts, all of one form whichever way they came, into the
// journal's inbox. Guarantees:
//   - Kept: an alert is on disk before its sender is answered or asked for more. Falco itself delivers at most once: what it
//     drops, or loses with a connection, never gets here.
//   - Once: an alert that comes again, by the same way or another, has the same key and is stored once.
//   - Nothing is guessed: a field that Falco left out stays absent, and JSON that is broken is left out.
//   - A slow journal slows the sender. What waits here is bounded: one batch a gRPC stream or feed, one alert a request.
//   - What cannot be read is counted and logged without its content, and the rest goes on.
//
// Start reading at NewHTTP, NewGRPC and NewDirect. decode.go makes one alert of either of Falco's forms, record.go gives it
// back the CloudTrail record it is about, key.go says when two alerts are one; intake.go is what the three ways share.
package falco

// The values of journal.Alert.Intake.
const (
	intakeHTTP   = "falco_http"
	intakeGRPC   = "falco_grpc"
	intakeDirect = "cloudtrail"
)
