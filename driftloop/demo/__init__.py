"""`driftloop demo`: two models fall behind on real data; what the system does about it is told live and checked."""
