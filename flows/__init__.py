"""Where everything meets: specification, plan, executors and command line."""
