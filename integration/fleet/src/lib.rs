//! A fleet of agents without nodes, in one process: what the protocol costs when there are thousands.
//!
//! Each member is what an agent is to NATS and to the controller: its own connection by `agent::bus::Link`, the machine
//! `node_plan::Follower` that the agent's own machine is built on, the driver and the executors of the agent. What it
//! lacks is a runtime: it says that every image it knows is warm. Members share the intents they know, so that the memory
//! of the process is not that of thousands of nodes.

pub mod board;
pub mod control;
pub mod member;
pub mod shelf;

use std::sync::Arc;

use daemon::bus::{BusError, NatsConfig};
use daemon::clock::Clock;
use daemon::supervise::Tasks;
use node_plan::Timing;
use serde::{Deserialize, Serialize};
use shared::name::{ClusterId, NodeName};

use board::Board;
use shelf::Shelf;

/// What all members have in common.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// The way to NATS, as an agent's.
    pub nats: NatsConfig,
    /// The cluster.
    pub cluster: ClusterId,
    /// An agent's intervals.
    pub timing: Timing,
}

/// The fleet.
pub struct Fleet {
    config: Config,
    tasks: Tasks,
    clock: Clock,
    board: Arc<Board>,
    shelf: Arc<Shelf>,
    members: usize,
}

/// The Node of a member.
pub fn node(number: usize) -> String {
    format!("node-{number:05}")
}

impl Fleet {
    /// Nobody yet.
    pub fn new(config: Config, tasks: Tasks) -> Self {
        let (board, shelf) = (Arc::new(Board::default()), Arc::new(Shelf::default()));
        Self { config, tasks, clock: Clock::new(), board, shelf, members: 0 }
    }

    /// Starts so many more, all at once: whatever spreads them is their own.
    ///
    /// # Errors
    /// Settings that no attempt to connect could use.
    pub async fn start(&mut self, count: usize) -> Result<(), BusError> {
        for number in self.members..self.members + count {
            let Ok(node) = NodeName::parse(&node(number)) else { continue };
            self.board.enter();
            let place = member::Place {
                number,
                node,
                config: &self.config,
                board: Arc::clone(&self.board),
                shelf: Arc::clone(&self.shelf),
                clock: self.clock,
            };
            member::start(place, &self.tasks).await?;
        }
        self.members += count;
        Ok(())
    }

    /// What is seen of all of them.
    pub fn board(&self) -> &Board {
        &self.board
    }
}
