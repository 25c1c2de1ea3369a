defmodule Tiebeam.Metrics do
  @moduledoc """
  What a node tells Prometheus: the same metrics, of the same names, as `/metrics` of a Rust node (`tiebeam node --http`).

      iex> text = Tiebeam.Metrics.prometheus(MyApp.Cluster)
      iex> text =~ ~s(\\ntiebeam_members{status="alive"} 1\\n)
      true

  `Tiebeam.Plug.Health` serves it; any other server can, with the type of `content_type/0`. With several clusters on one node serve each
  at a path of its own: the names say nothing of the cluster.

  ## Counters of your own

  Tiebeam has none for applications: what an application counts goes through `:telemetry`, where Tiebeam's own events are as well
  (`Tiebeam.Event`), and one of its reporters (such as the package `telemetry_metrics_prometheus_core`) makes text for Prometheus
  of both. On a Rust node that is the crate `metrics`, or `prometheus-client`, with an exporter of its own.

      :telemetry.execute([:my_app, :order, :placed], %{count: 1}, %{shop: "a"})
  """

  alias Tiebeam.{Group, Registry, Table}

  @statuses [:alive, :suspect, :dead, :left]

  # In the order in which a Rust node has them: the name, what it says, and the key of `t:Tiebeam.metrics/0`.
  @counters [
    {"messages_sent", "Messages of the membership", :sent},
    {"sent_bytes", "Their bytes", :sent_bytes},
    {"messages_received", "Messages of the membership", :received},
    {"received_bytes", "Their bytes", :received_bytes},
    {"probes", "Members probed", :probes},
    {"probes_failed", "Probes that nobody answered", :probes_failed},
    {"suspicions", "Suspicions raised by this node", :suspicions},
    {"deaths", "Members declared dead", :deaths},
    {"evictions", "Connections of dead members closed", :evictions},
    {"contested", "Verdicts not carried out", :contested}
  ]

  @doc "The type of what `prometheus/1` makes: OpenMetrics 1.0, which Prometheus reads since its release 2.5."
  @spec content_type() :: String.t()
  def content_type, do: "application/openmetrics-text; version=1.0.0; charset=utf-8"

  @doc """
  The metrics of this node and its cluster. Reads tables, and walks the one of the groups. Raises `ArgumentError` if no cluster of that name
  runs on this node.
  """
  @spec prometheus(Tiebeam.name()) :: String.t()
  def prometheus(cluster) do
    members = Tiebeam.members(cluster)
    health = Tiebeam.health(cluster)
    metrics = Tiebeam.metrics(cluster)
    {leader, term} = Table.leader(cluster)
    {uptime, _since_the_last_call} = :erlang.statistics(:wall_clock)

    IO.iodata_to_binary([
      gauge("uptime_seconds", "Time since the node began", uptime / 1_000),
      gauge("connected_nodes", "Visible nodes", length(Node.list())),
      gauge("processes", "Processes of the node", :erlang.system_info(:process_count)),
      describe("members", "gauge", "Members of the cluster, by what this node takes them for"),
      for(
        status <- @statuses,
        do: row(~s(members{status="#{status}"}), Enum.count(members, &(&1.status == status)))
      ),
      gauge("term", "The latest term of the group that agrees on a leader", term),
      gauge("led", "1 while a leader is known", flag(leader != nil)),
      gauge("names", "Names of the default scope", Registry.count(cluster)),
      gauge("groups", "Groups of the default scope", length(Group.groups(cluster))),
      gauge("health_multiplier", "1 when all is well, up to 8", health.multiplier),
      gauge("minority", "1 while no majority is seen", flag(health.minority)),
      counter("stalls", "Times the node stood still", health.stalls),
      for({name, help, key} <- @counters, do: counter(name, help, Map.fetch!(metrics, key))),
      "# EOF\n"
    ])
  end

  defp gauge(name, help, value), do: [describe(name, "gauge", help), row(name, value)]
  defp counter(name, help, value), do: [describe(name, "counter", help), row(name <> "_total", value)]

  defp describe(name, type, help),
    do: ["# HELP tiebeam_", name, " ", help, "\n# TYPE tiebeam_", name, " ", type, "\n"]

  defp row(name, value), do: ["tiebeam_", name, " ", to_string(value), "\n"]

  defp flag(true), do: 1
  defp flag(false), do: 0
end
