defmodule Cluster.Strategy.Tiebeam do
  @moduledoc """
  A cluster of `Tiebeam` as a topology of libcluster: for applications that say in libcluster's configuration how their nodes meet.

      config :libcluster,
        topologies: [
          my_app: [
            strategy: Cluster.Strategy.Tiebeam,
            config: [
              name: MyApp.Cluster,
              discovery: [{Tiebeam.Discovery.Kubernetes, service: "app-headless", namespace: "prod"}]
            ]
          ]
        ]

  libcluster's supervisor then runs the cluster, which finds the nodes and is the view of them: no other child is needed, and
  `Tiebeam.members(MyApp.Cluster)` and all the rest work. Where another strategy connects the nodes already, keep it, and start
  `{Tiebeam, name: MyApp.Cluster}` as usual: nodes that are connected become members by themselves.

  - `config` has the options of `Tiebeam.start_link/1`: `:join` for seeds, `:discovery`, and so on. `:name` is the topology's if it
    is not given.
  - `connect` of the topology is how the discoveries connect, unless they have a `:connect` of their own. `disconnect` and
    `list_nodes` are not used: a node that is not found any more stays connected (see `:disconnect_vanished` in `Tiebeam.Discovery`).

  This module needs nothing of libcluster, and is there whether libcluster is or not.
  """

  # libcluster is no dependency, so its behaviour (`child_spec/1` and `start_link/1`, with a list of one `Cluster.Strategy.State`) is
  # not declared. A test compares the two.
  @typep state :: %{
           required(:topology) => atom,
           required(:connect) => {module, atom, [term]} | nil,
           required(:config) => keyword,
           optional(atom) => term
         }

  @doc false
  @spec child_spec([state]) :: Supervisor.child_spec()
  def child_spec([_state] = states) do
    %{id: __MODULE__, type: :supervisor, start: {__MODULE__, :start_link, [states]}}
  end

  @doc false
  @spec start_link([state]) :: Supervisor.on_start()
  def start_link([state]), do: state |> options() |> Tiebeam.start_link()

  @doc """
  The options of the cluster that a topology makes.

      iex> seeds = {Tiebeam.Discovery.Static, nodes: [:a@h]}
      iex> topology = %{topology: :app, connect: {MyApp, :connect, []}, config: [discovery: [seeds]]}
      iex> Cluster.Strategy.Tiebeam.options(topology)
      [name: :app, discovery: [{Tiebeam.Discovery.Static, [connect: {MyApp, :connect, []}, nodes: [:a@h]]}]]
  """
  @spec options(state) :: keyword
  def options(%{topology: topology, connect: connect, config: config}) do
    config = Keyword.put_new(config, :name, topology)

    if connect && Keyword.has_key?(config, :discovery),
      do: Keyword.update!(config, :discovery, &Enum.map(&1, fn entry -> connected_by(entry, connect) end)),
      else: config
  end

  # What is no entry is refused by `Tiebeam.start_link/1`.
  defp connected_by({module, options}, connect) when is_list(options),
    do: {module, Keyword.put_new(options, :connect, connect)}

  defp connected_by(module, connect) when is_atom(module), do: {module, connect: connect}
  defp connected_by(other, _connect), do: other
end
