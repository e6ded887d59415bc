"""Work outside requests: wallet pushes and schedules."""
