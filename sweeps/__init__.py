"""Many runs: sweeps, searches, and the tables and figures made from run folders."""
