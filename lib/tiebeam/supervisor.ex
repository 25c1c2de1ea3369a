defmodule Tiebeam.Supervisor do
  @moduledoc false
  # One cluster: the table that callers read, the reporter and the server, which survive each other, and who finds nodes. Where
  # there is a disk, a process of its own has it, and the server does not survive that one: it begins anew with what the disk has.

  use Supervisor

  alias Tiebeam.Discovery.Connector
  alias Tiebeam.{Options, Reporter, Server, Table}
  alias Tiebeam.Leadership.Store

  @spec start_link(Options.t()) :: Supervisor.on_start()
  def start_link(options) do
    Supervisor.start_link(__MODULE__, options, name: options.name)
  end

  @impl true
  def init(options) do
    Table.new(options.name, options.process, options.metadata)
    reporter = Reporter.new(options.name)
    server = with_disk({Server, {options, reporter}}, options)
    Supervisor.init([{Reporter, reporter}, server | discovery(options)], strategy: :one_for_one)
  end

  defp with_disk(server, options) do
    if Options.leadership?(options) and options.data_dir != :memory do
      children = [{Store, {options.name, options.data_dir}}, server]
      %{id: Store, start: {Supervisor, :start_link, [children, [strategy: :rest_for_one]]}, type: :supervisor}
    else
      server
    end
  end

  # Last: they stop before the server says goodbye.
  defp discovery(options) do
    for {discovery, index} <- Enum.with_index(options.discovery),
        do: {Connector, {options.name, index, discovery}}
  end
end
