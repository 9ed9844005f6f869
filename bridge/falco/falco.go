// Package falco takes in what happened: Falco's alerts by http_output and by gRPC, and CloudTrail records read without
// Falco.
//
// In come requests, gRPC responses and records; out go journal.Alerts, all of one form whichever way they came, into the
// journal's inbox. Guarantees:
//   - Kept: an alert is on disk before its sender is told so or asked for more. Falco itself delivers at most once: what it
//     drops, or loses with a connection, never gets here.
//   - Once: an alert that comes again, by the same way or another, has the same key and is stored once.
//   - Nothing is guessed: a field that Falco left out stays absent, and JSON that is broken is left out.
//   - A journal that is slow or refuses holds up gRPC and feeds: what waits here is bounded by two batches, the rest waits at
//     its source. Falco's http_output cannot be held up without all its other outputs: after a second the alert is held in
//     memory, within limits in count and bytes, and the sender told so with 503. It is stored as soon as the journal takes it.
//   - What is lost all the same, with the memory full or at a stop while the journal refuses, is counted
//     (tfdrift_alerts_lost_total) and logged.
//   - What cannot be read is counted and logged without its content, and the rest goes on.
//   - What is wrong shows in Status with the way out, and is over when an alert, a connection or a stored batch shows so.
//
// Start reading at NewHTTP, NewGRPC and NewDirect. decode.go makes one alert of either of Falco's forms, record.go gives it
// back the CloudTrail record it is about, key.go says when two alerts are one. intake.go is what the three ways share, hold.go
// the memory of the HTTP intake and serve.go its server; mend.go says which settings of Falco are wrong, diagnose.go what is
// wrong with a gRPC connection.
package falco

// The values of journal.Alert.Intake.
const (
	intakeHTTP   = "falco_http"
	intakeGRPC   = "falco_grpc"
	intakeDirect = "cloudtrail"
)
