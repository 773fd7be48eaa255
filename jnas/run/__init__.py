"""Host loops of the commands. Rooms below this one know no file and no clock."""
