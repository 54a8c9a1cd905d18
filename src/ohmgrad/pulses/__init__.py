"""Floor 2: from an asked-for change to the change of the devices."""
