//! A load at work on a world whose timeouts are short, so that trouble is noticed during a test.

use std::time::Duration;

use crate::{Load, Shape, VersionOracle, World, WorldBuilder};

/// A world under load.
#[derive(Debug)]
pub struct Trial {
    /// The servers.
    pub world: World,
    /// What the load is like.
    pub shape: Shape,
    /// Writers and readers.
    pub load: Load,
}

impl Trial {
    /// A load that leaves the machine time to notice faults.
    pub fn shape() -> Shape {
        Shape {
            pause: Duration::from_millis(2),
            ..Shape::default()
        }
    }

    /// The servers, without the load.
    pub fn world(settings: impl FnOnce(WorldBuilder) -> WorldBuilder) -> World {
        Trial::world_of(Trial::shape(), settings)
    }

    /// The servers for a load like this.
    pub fn world_of(shape: Shape, settings: impl FnOnce(WorldBuilder) -> WorldBuilder) -> World {
        Load::world(shape, |world| {
            settings(
                world
                    .conf("pg_redis_cache.command_timeout", "300ms")
                    .conf("pg_redis_cache.connect_timeout", "500ms"),
            )
        })
    }

    /// Starts the servers and the load, and waits until it is under way.
    pub fn begin(settings: impl FnOnce(WorldBuilder) -> WorldBuilder) -> Trial {
        let (world, shape) = (Trial::world(settings), Trial::shape());
        let load = Load::start(&world, shape);
        load.goes_on(30);
        Trial { world, shape, load }
    }

    /// Begins to poll the keys.
    pub fn watch(&self) -> VersionOracle {
        Load::watch(&self.world, self.shape)
    }

    /// Ends the load; then Redis has to be in step.
    ///
    /// # Panics
    /// If it is not.
    pub fn end(self) -> World {
        self.load.goes_on(30);
        self.load.stop();
        self.world.wait_until_active();
        Load::assert_all_rows(&self.world);
        self.world
    }
}
