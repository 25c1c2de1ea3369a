defmodule Tiebeam.Supervisor do
  @moduledoc false
  # One cluster: the table that callers read, the reporter and the server, which survive each other, and who finds nodes.

  use Supervisor

  alias Tiebeam.Discovery.Connector
  alias Tiebeam.{Options, Reporter, Server, Table}

  @spec start_link(Options.t()) :: Supervisor.on_start()
  def start_link(options) do
    Supervisor.start_link(__MODULE__, options, name: options.name)
  end

  @impl true
  def init(options) do
    Table.new(options.name, options.process, options.metadata)
    reporter = Reporter.new(options.name)
    children = [{Reporter, reporter}, {Server, {options, reporter}} | discovery(options)]
    Supervisor.init(children, strategy: :one_for_one)
  end

  # Last: they stop before the server says goodbye.
  defp discovery(options) do
    for {discovery, index} <- Enum.with_index(options.discovery),
        do: {Connector, {options.name, index, discovery}}
  end
end
