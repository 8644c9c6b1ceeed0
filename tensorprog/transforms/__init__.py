"""Programs made from programs."""
