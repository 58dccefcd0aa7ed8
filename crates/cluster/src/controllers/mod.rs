//! The cluster's controllers: loops that bring the stored state to what the specs ask for.
