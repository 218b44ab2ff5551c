"""What training minimises and how: losses, parameter groups, schedules, the coins of scheduled sampling."""
