"""Running programs: one loop over instructions, three spaces to run it in."""
