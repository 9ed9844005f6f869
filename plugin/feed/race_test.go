//go:build race

package feed_test

// raceDetector multiplies memory: then the bound on it says nothing.
const raceDetector = true
