//! The intervals of tests: owns how short each is, in place of what users get.

use serde_json::{Value, json};

/// Intervals that make a test fast; what they are for stands at their keys.
pub(super) fn test_timings() -> (Value, Value) {
    let controller = json!({
        "reload": "100ms",
        "timing": {
            "beat": "500ms", "spread": "100ms", "heartbeat": "500ms", "judge": "200ms", "labelWindow": "0ms",
            "setStatus": "200ms",
            "writeBackoff": "100ms", "writeBackoffMax": "1s",
        },
        "nats": { "reconnectMax": "500ms", "requestTimeout": "2s", "pingInterval": "1s" },
    });
    let agent = json!({
        "timing": {
            "heartbeat": "500ms", "verifyMin": "300ms", "verifyMax": "600ms", "inventoryDelay": "100ms",
            "inventoryGap": "200ms", "inventoryEvery": "10s", "inventoryBackoffMax": "1s", "beatLost": "3s", "poll": "1s",
            "startSpread": "100ms", "readRetry": "100ms", "persist": "200ms", "pullDeadline": "20s", "pullBackoff": "200ms",
            "pullBackoffMax": "1s", "pullFinal": "2s", "pressureHold": "500ms", "gcRetry": "500ms",
        },
        "nats": { "reconnectMax": "500ms", "requestTimeout": "2s", "pingInterval": "1s" },
    });
    (controller, agent)
}
