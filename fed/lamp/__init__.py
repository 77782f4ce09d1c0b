"""The LaMP benchmark: six tasks, its data in two layouts, a device's own history, cohorts, metrics, submissions."""
